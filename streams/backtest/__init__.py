"""`dpme backtest`: forecasts walked forward over bars, their evaluation, the report and the model card."""
