"""How safe a model is and what that costs it: shares and means, with their intervals."""
