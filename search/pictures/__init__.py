"""Pictures and figures: contact sheets, masks, attacks, and what a page is made of."""
