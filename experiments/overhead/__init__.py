"""What does sdelab cost over the same thing written by hand?"""
