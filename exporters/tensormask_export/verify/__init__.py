"""Does the file compute what PyTorch computes?"""
