const root = document.documentElement, toggle = document.getElementById("theme");
const wanted = matchMedia("(prefers-color-scheme: dark)");
function show(theme) {
  root.dataset.theme = theme;
  toggle.textContent = theme === "dark" ? "Light" : "Dark";
  toggle.setAttribute("aria-pressed", theme === "dark");
}
toggle.addEventListener("click", () => show(root.dataset.theme === "dark" ? "light" : "dark"));
wanted.addEventListener("change", () => show(wanted.matches ? "dark" : "light"));
show(wanted.matches ? "dark" : "light");

const chooser = document.getElementById("run");
if (chooser) {
  const runs = JSON.parse(document.getElementById("runs").textContent);
  chooser.addEventListener("change", () => {
    const figure = runs[chooser.selectedIndex];
    Plotly.react("over-time", figure.data, figure.layout);
  });
}
