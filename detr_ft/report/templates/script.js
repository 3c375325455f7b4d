// Sort a table by a click on a heading, enlarge photos, switch outlines off.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") !== "descending";
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      const difference = column ? Number(a) - Number(b) : a.localeCompare(b);
      return falling ? -difference : difference;
    });
    heads.forEach(other => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    table.tBodies[0].append(...rows);
  }));
}
for (const box of document.querySelectorAll(".switches input")) {
  box.addEventListener("change", () => document.body.classList.toggle(`no-${box.value}`, !box.checked));
}
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".photos button")) {
  button.addEventListener("click", () => {
    const frame = button.querySelector(".frame").cloneNode(true);
    const image = frame.querySelector("img");
    frame.style.setProperty("--ratio", `${image.naturalWidth} / ${image.naturalHeight}`);
    dialog.querySelector(".large").replaceChildren(frame);
    dialog.querySelector("p").textContent = button.parentElement.querySelector("figcaption").textContent;
    dialog.showModal();
  });
}
dialog?.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
