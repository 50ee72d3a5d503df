"""What models, dataset, engine and evaluation share: settings base, errors, rank helpers, library workarounds."""
