"""How the bundled generators and the classifier that judges them were trained."""
