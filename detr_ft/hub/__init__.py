"""The Hub: a run's model card (`card`) and its upload (`push`)."""
