"""How one picture is decoded, and how it becomes an array of the size and depth that training uses."""
