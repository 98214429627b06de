"""What a person runs before a session: is all there, and as it has to be?"""
