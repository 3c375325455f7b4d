"""Load models, fit them to data, choose the parts that train, attach a criterion."""
