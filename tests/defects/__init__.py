"""The defects of earlier systems, each as a test."""
