"""The Hugging Face Hub: model card (`card`), upload (`push`), Space (`space`)."""
