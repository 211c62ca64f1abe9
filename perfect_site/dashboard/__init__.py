"""The pages: views, forms, filters, and how rows become what templates show."""
