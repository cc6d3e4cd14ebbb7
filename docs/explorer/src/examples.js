// The five pictures that are there at once. Each shows one thing.

const GROUND = { start: [214, 205, 190], end: [120, 140, 170], angle: 0.6 };
const RED = [204, 68, 60];
const BLUE = [52, 96, 178];
const GREEN = [66, 150, 90];
const YELLOW = [238, 196, 70];
const VIOLET = [128, 74, 150];

const shape = (kind, cx, cy, long, aspect, angle, colour) => ({
  kind,
  cx,
  cy,
  long,
  aspect,
  angle,
  colour,
});
const ellipse = (...place) => shape(0, ...place);
const rectangle = (...place) => shape(1, ...place);
const triangle = (...place) => shape(2, ...place);
const star = (...place) => shape(3, ...place);

export const EXAMPLES = [
  {
    title: "Overlap",
    scene: {
      seed: 1,
      ground: GROUND,
      shapes: [
        rectangle(52, 70, 78, 0.7, 0.35, BLUE),
        star(84, 52, 60, 0.95, 0.2, YELLOW),
        ellipse(38, 36, 34, 0.8, 0.9, RED),
      ],
    },
  },
  {
    title: "Large and small",
    scene: {
      seed: 2,
      ground: { start: [60, 70, 84], end: [110, 120, 126], angle: 2 },
      shapes: [
        ellipse(62, 68, 104, 0.85, 0.3, GREEN),
        star(104, 24, 20, 0.9, 0.5, YELLOW),
        triangle(22, 20, 24, 0.9, 0, RED),
        rectangle(108, 110, 16, 0.8, 0.4, [230, 230, 235]),
      ],
    },
  },
  {
    title: "Two halves",
    scene: {
      seed: 3,
      ground: { start: [196, 180, 200], end: [230, 222, 200], angle: 1.2 },
      shapes: [ellipse(64, 64, 92, 0.6, 0.1, VIOLET), rectangle(66, 64, 110, 0.55, 1.6, GREEN)],
    },
  },
  {
    title: "One centre",
    scene: {
      seed: 4,
      ground: { start: [40, 60, 66], end: [90, 84, 70], angle: 4 },
      shapes: [ellipse(64, 64, 92, 0.9, 0, RED), star(64, 64, 34, 0.95, 0, YELLOW)],
    },
  },
  {
    title: "Crowd",
    scene: {
      seed: 5,
      ground: { start: [150, 176, 160], end: [206, 204, 170], angle: 5 },
      shapes: [
        triangle(34, 40, 46, 0.9, 0.2, BLUE),
        rectangle(78, 34, 40, 0.8, 0.5, RED),
        ellipse(98, 76, 48, 0.7, 2.2, VIOLET),
        star(48, 90, 50, 0.95, 0.4, YELLOW),
        ellipse(20, 88, 26, 0.9, 0, [40, 44, 50]),
        triangle(84, 108, 34, 0.8, 0.9, GREEN),
      ],
    },
  },
];
