"""`python -m mnist_suite` runs the command line."""

from mnist_suite import main

if __name__ == "__main__":
    main()
