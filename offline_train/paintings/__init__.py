"""How good paintings are."""
