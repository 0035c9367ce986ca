"""From the model to text: cells, charts, figures and images. Independent of Textual."""
