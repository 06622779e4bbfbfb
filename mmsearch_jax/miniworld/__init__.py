"""The mini-world: a generated world to learn in and a real one to be measured on, with pictures, pages and questions."""
