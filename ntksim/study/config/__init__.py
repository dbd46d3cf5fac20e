"""What a user asks for: the configuration's sections and the messages about what is wrong with them."""
