"""`python -m itaclip_hf.cli` is `itaclip`."""

from .main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
