"""What is trained on the data that the methods write: classifiers, reward models, chat models, steering vectors.

Each module trains one kind of model from plain examples and loads it again. None of them knows where the examples
came from or which experiment asked.
"""
