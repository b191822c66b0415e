"""Export and training: the only home of torch. Turns trained weights into the ONNX packs that the engine runs."""
