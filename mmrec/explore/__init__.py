"""`mmrec explore`: a page in the browser that shows what an export knows."""
