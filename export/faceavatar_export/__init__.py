"""Export and training: the only home of torch. Trained weights become the ONNX packs that the engine runs."""
