"""A trained run as one file for other runtimes: ONNX (scored here without torch) or torch.export's pt2."""
