"""One module per revision, named `v0001_what`; each spells its tables out, so that it means the same for ever."""
