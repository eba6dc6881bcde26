"""`unifocal networks`: what can be trained."""

from unifocal.lab.commands.tables import plain, print_table


def networks() -> None:
    """Print the networks: name, what they are, arguments, paper."""
    from unifocal.lab.networks.catalogue import NETWORKS

    rows = []
    for network in NETWORKS.values():
        arguments = [f"{name}={argument.default}: {argument.text}" for name, argument in network.arguments.items()]
        if network.width:
            widths = " / ".join(str(width) for width in network.width.values())
            arguments.insert(0, f"width={widths} (2D / 3D): channels of the first level")
        supervision = "" if network.deep_supervision else "\nno deep supervision"
        title = f"[bold]{network.name}[/bold]\n{plain(network.title)}"
        rows.append((title, plain(network.text + supervision), plain("\n".join(arguments)), plain(network.source)))
    print_table(("name", "what it is", "arguments, as in unet:width=32", "paper"), rows, lines=True)
