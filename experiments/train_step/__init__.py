"""What do the forward pass and the training step of DDPM++ cost, beside the same network in PyTorch?"""
