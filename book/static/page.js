// names for screen readers that differ from what is to be read on the button: without them, the words on it are its name
for (const one of document.querySelectorAll('summary[aria-label="Toggle hidden content"], .search-button-field')) one.removeAttribute("aria-label");
// figures that scroll (page.css) can be reached by keys
if (matchMedia("(max-width: 600px)").matches) for (const one of document.querySelectorAll(".bd-article p > img, .bd-article .cell_output > img")) one.parentElement.tabIndex = 0;
