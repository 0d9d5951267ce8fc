"""The risk model: what moves the market's factors make over a horizon, estimated from bars and recorded as integers."""
