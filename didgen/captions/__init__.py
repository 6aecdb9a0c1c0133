"""DermPrompt: attributes of a dermoscopic image, and the sentence made from them."""
