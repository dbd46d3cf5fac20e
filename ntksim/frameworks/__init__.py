"""Networks of other frameworks as ntksim's: a `Network` and its `Parameters`. No framework is imported before it is needed."""
