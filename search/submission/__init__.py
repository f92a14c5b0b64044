"""`search.submit`: predict the test images and write the submission."""
