"""Training, evaluation, prediction: what turns a method and a folder of pictures into a run directory."""
