"""LEARNAE: people train one neural network together, without a server, and share a fund by who helped."""

__version__ = "0.1.0"
