"""Faces in a picture: where they are (detect), upright and cropped (align), as numbers (embed)."""
