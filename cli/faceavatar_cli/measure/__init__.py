"""How fast a pack is here: fresh processes, cases in this one, the machine's own peak, and what came before.

Knows the engine by its public names; the clock, the tables and the plots are this folder's.
"""
