"""Data: reading it from anywhere into one schema, opening images, finding defects, writing it out."""
