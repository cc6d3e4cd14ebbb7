// The guided tour: what is said, and what the page shows with it.
//
// example: a picture to show first. view: which one opens. shape: the shape to choose.
// settings: of the view. at: the element meant, brought into sight and marked.

export const STEPS = [
  {
    title: "Outlines without boxes first",
    text:
      "The model finds every object and draws its outline. It cuts nothing out of the " +
      "picture: windows slide over it, and each says in one go whether an object sits in it " +
      "and where.",
    example: 0,
    at: ".stage",
    view: "window",
  },
  {
    title: "Move something",
    text:
      "Drag the yellow star over the others; its round knobs turn, resize and flatten it. The " +
      "outlines follow, computed by the model in this page. Small, thin, or hidden shapes are " +
      "hard for it.",
    shape: 1,
    at: ".stage",
    view: "window",
  },
  {
    title: "A window and its bins",
    text:
      "Each outline comes from one window. Its mask is a grid of bins, each a single number: " +
      "how surely this place belongs to the object. Point at a bin.",
    at: ".window-bins",
    view: "window",
    settings: { bin: null },
  },
  {
    title: "One bin, up to sixteen values",
    text:
      "For a large object a bin is no output of its own. It is read between neighbours in the " +
      "aligned tensor: two along each of its four axes. The sum is written out, and it is the " +
      "model's own number.",
    at: ".sum",
    view: "window",
    settings: { bin: null },
  },
  {
    title: "Two ways to file a number",
    text:
      "Natural: what a window says is filed under the window. Aligned: it is filed under the " +
      "pixel it speaks of. The same numbers, in two orders.",
    at: ".walls",
    view: "walls",
    settings: { entry: null },
  },
  {
    title: "The step between is a shear",
    text:
      "Press Play. A diagonal of the natural tensor becomes a column of the aligned one. α " +
      "says how many cells lie between two bins, and so how far the shear goes.",
    at: ".shear-part",
    view: "walls",
    settings: { alpha: 1, share: 0 },
  },
  {
    title: "More pixels for free",
    text:
      "Five values across, a mask of twenty: enlarged natural bins stay blurred. Aligned " +
      "values are taken from neighbouring cells, each of which knows its own pixel, and the " +
      "outline comes back.",
    at: ".lam-part",
    view: "upscale",
    shape: 1,
    settings: { side: 5, lam: 4 },
  },
  {
    title: "Large objects keep small bins",
    text:
      "For a large object a feature pyramid has large bins. The bipyramid trades cells for " +
      "bins: coarser steps between windows, as many bins as the object is large.",
    example: 1,
    at: "#view-bipyramid .pair",
    view: "bipyramid",
    shape: 0,
    settings: { level: 3, sizeId: 0 },
  },
  {
    title: "Who learns an object",
    text:
      "In training, a window answers for an object if it contains it, fits it, and sits on " +
      "it. Drag the shape and see the green dots follow.",
    example: 3,
    at: ".stage",
    view: "assignment",
    shape: 1,
    settings: { level: 1, sizeId: 0, cell: null },
  },
  {
    title: "Objects with one centre",
    text:
      "Two shapes share a centre here. They differ in size, so windows of different sizes " +
      "learn them: that is why there are levels at all. Now draw your own picture.",
    example: 3,
    at: ".stage",
    view: "assignment",
    shape: 0,
    settings: { level: 3, sizeId: 0, cell: null },
  },
];
