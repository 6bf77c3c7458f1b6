// Uses the page as a reader would, and says what came of it.
(() => {
  const plan = document.getElementById("plan");
  const column = (title) =>
    Array.from(plan.tHead.rows[0].cells).findIndex((cell) => cell.textContent === title);
  const header = (title) => plan.tHead.rows[0].cells[column(title)];
  const numbers = () =>
    Array.from(plan.tBodies[0].rows)
      .filter((row) => row.checkVisibility())
      .map((row) => Number(row.cells[column("#")].textContent));
  const sort = (title) => {
    header(title).querySelector("button").click();
    return { aria: header(title).getAttribute("aria-sort"), numbers: numbers() };
  };
  const filter = (text, scheme) => {
    const [find, select] = ["find", "scheme"].map((id) => document.getElementById(id));
    find.value = text;
    find.dispatchEvent(new Event("input"));
    select.value = scheme;
    select.dispatchEvent(new Event("change"));
    return { numbers: numbers(), count: document.getElementById("count").textContent };
  };

  // Text of plots that is cut off, or stands over other text.
  const flaws = [];
  for (const plot of document.querySelectorAll("svg")) {
    const frame = plot.getBoundingClientRect();
    const texts = Array.from(plot.querySelectorAll("text"), (text) => {
      const { left, right, top, bottom } = text.getBoundingClientRect();
      return { text: text.textContent.trim(), left, right, top, bottom };
    });
    texts.forEach((one, at) => {
      const inside = one.left >= frame.left - 1 && one.right <= frame.right + 1
        && one.top >= frame.top - 1 && one.bottom <= frame.bottom + 1;
      if (!inside) flaws.push(`cut off: ${one.text}`);
      for (const other of texts.slice(at + 1)) {
        const apart = one.right <= other.left || other.right <= one.left
          || one.bottom - 3 <= other.top || other.bottom - 3 <= one.top;
        if (!apart) flaws.push(`${one.text} over ${other.text}`);
      }
    });
  }

  const found = {
    flaws,
    background: getComputedStyle(document.body).backgroundColor,
    overflow: document.documentElement.scrollWidth - innerWidth,
    scripts: document.scripts.length,
    images: document.images.length,
    plots: document.querySelectorAll("svg").length,
  };
  if (plan) {
    found.filterShown = document.querySelector(".filter").checkVisibility();
    found.start = { aria: header("#").getAttribute("aria-sort"), numbers: numbers() };
    found.before = sort("Before");
    found.beforeAgain = sort("Before");
    found.sqnr = sort("Weight SQNR");
    found.layer = sort("Layer");
    found.sorted = plan.querySelectorAll("[aria-sort]").length;
    sort("#");
    found.byText = filter("LAYERS.1 out_proj", "");
    found.byScheme = filter("", "keep");
    found.byBoth = filter("layers.3", "keep");
    found.none = filter("no such layer", "");
    found.all = filter("", "");
  }
  return found;
})()
