"""How the digits networks and the Fashion-MNIST CNN are trained, whatever they are written in."""

__all__ = ["BATCH", "DECAY", "EPOCHS", "MOMENTUM", "STEP"]

EPOCHS, BATCH, STEP, MOMENTUM, DECAY = 30, 64, 0.05, 0.9, 1e-3
