"""`python -m detr_ft`, so that `accelerate launch -m detr_ft train ...` works."""

from detr_ft.cli import main

if __name__ == "__main__":
    main()
