"""The lab: compare losses on a folder of images. Needs the extra `unifocal[lab]`."""
