"""What a gradient through sampling costs in memory and time, adjoint by adjoint."""
