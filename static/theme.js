// Runs before the first paint: the theme that the reader chose, if they chose one.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* storage is blocked: the system's theme holds */ }
