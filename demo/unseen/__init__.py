"""How well people are decoded whom the model was not trained on, by minutes of calibration."""
