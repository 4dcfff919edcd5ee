"""The knobs that steady a device: clocks, governors, power modes."""
