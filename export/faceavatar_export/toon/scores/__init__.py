"""How good the toon pack is: one room a question, and a judge that all of them ask."""
