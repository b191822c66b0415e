"""The art of each style: one room a style, with its DiceBear options and the strokes laid over them."""
