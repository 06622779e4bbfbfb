"""Each benchmark's own metric: pure functions of strings, a file a source; `table` names them."""
