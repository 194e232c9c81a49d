"""How the bundled generator and the classifier that judges it were trained."""
